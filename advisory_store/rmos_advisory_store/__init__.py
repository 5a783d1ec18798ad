"""The reference advisory store: small, on files, for demos, tests and shops without one."""
