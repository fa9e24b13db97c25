"""The estimate, proven: real caches in torch, an engine's own log, a running server.

Nothing here is imported by a plan; torch and transformers are imported when they are asked for.
"""
