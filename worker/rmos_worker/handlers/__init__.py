"""What each task does with the jobs it holds."""
