"""What families put together: attention, MLPs and mixers, decoders and encoders, eyes and ears."""
