"""kvplan: does this model fit on this GPU at this context length?"""

__version__ = "0.1.0"
