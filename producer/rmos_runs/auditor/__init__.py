"""What auditors hold in their hands: proofs, the verifier, the witness."""
