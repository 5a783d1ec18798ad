"""Records of older systems brought into the artifact store (decision 0026); their source is only read.

``sources`` yields the bytes of each record, ``decoding`` parses them, ``convert`` and ``advisories`` decide
what becomes of them, ``survey`` and ``run`` hold that against the store.
"""
