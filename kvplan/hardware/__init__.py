"""The devices: a catalogue of what drivers report, the readings of ``--gpu``, and detection."""
