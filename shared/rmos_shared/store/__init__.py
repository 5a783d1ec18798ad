"""The artifact store: four verbs, published names never change."""
