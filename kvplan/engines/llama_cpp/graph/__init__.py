"""llama.cpp's compute graphs: the tensors that one micro-batch makes, layer by layer.

llama.cpp 0c1e57098, ``src/llama-graph.cpp`` and ``src/models/*.cpp``; run through ggml's scheduler and
allocator they give the size of its compute buffers.
"""
