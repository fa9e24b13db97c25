"""How engines are started: their own command lines and manifests, read into kvplan's words."""
