"""Who may approve an advisory: a policy, or a person."""
