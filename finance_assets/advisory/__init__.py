"""Performance of advised accounts: what vendors and custodians report, read, checked and compared."""
