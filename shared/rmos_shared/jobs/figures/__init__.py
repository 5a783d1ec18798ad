"""What a status shows of the ledger beside its counts; read at bounded cost, however many jobs there are."""
