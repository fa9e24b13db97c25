"""What ggml does with a graph before it runs: tensors, splits over backends, and buffers.

ggml as llama.cpp 0c1e57098 vendors it. Nothing here knows a model or computes a number of one.
"""
