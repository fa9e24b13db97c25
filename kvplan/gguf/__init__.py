"""GGUF by llama.cpp's rules: names of tensors, the type each mix gives them, bytes on disk and on a card."""
