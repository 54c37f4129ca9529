"""Account performance from any vendor file: reading, returns, reconciliation and explanations."""
