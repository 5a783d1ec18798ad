"""What makes a job run and end: executor, retry rule, heartbeat, reconciler, wiring."""
