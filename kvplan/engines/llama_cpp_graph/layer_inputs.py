"""Inputs of their own for each layer: an embedding a token, and a projection of the token's common one.

src/models/gemma3n.cpp, gemma4.cpp: build_inp_per_layer, project_per_layer_inputs.
"""

from kvplan.engines.ggml.tensor import (
    I32,
    Tensor,
    cont,
    get_rows,
    given,
    like,
    mul_mat,
    permute,
    reshape,
    weight,
)
from kvplan.engines.llama_cpp_graph.builder import Builder

# Bytes an element of the matrices that the quantizer leaves in 16 bits.
HALF = 2


def inputs_of_layers(builder: Builder, first: Tensor) -> Tensor:
    """Return all layers' inputs, [width, tokens, layers], from the scaled embedding."""
    hidden, tokens = builder.shape.hidden_size, builder.batch.num_tokens
    width, layers = builder.shape.per_layer_input, builder.shape.num_layers
    table = weight((width * layers, builder.shape.vocab_size), builder.places.cpu)
    looked_up = get_rows(table, given((tokens,), I32))
    looked_up = builder.graph.expand(like("scale", reshape(looked_up, (width, layers, tokens))))
    on = builder.places.layers[0]
    size = (hidden, width * layers)
    projected = mul_mat(weight(size, on, HALF * hidden * width * layers), first)
    projected = reshape(like("scale", projected), (width, layers, tokens))
    projected = like("mul", like("rms_norm", projected), weight((width,), on))
    both = like("scale", like("add", projected, looked_up))
    return cont(permute(both, (0, 2, 1, 3)))


def input_of_layer(builder: Builder, tensor: Tensor, own: Tensor) -> Tensor:
    """Gate a layer's own input, [width, tokens], by what the layer computed, and project it back."""
    gate = like("unary", builder.linear(tensor, builder.shape.per_layer_input, "inp_gate"))
    projected = builder.linear(like("mul", gate, own), builder.shape.hidden_size, "proj")
    return builder.norm(projected)
