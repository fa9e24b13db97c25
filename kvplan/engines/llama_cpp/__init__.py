"""llama.cpp's policy: ``engine(version)``; the parts are in the modules beside, one idea each."""

from kvplan.engines.llama_cpp.policy import LlamaCppEngine, engine

__all__ = ["LlamaCppEngine", "engine"]
