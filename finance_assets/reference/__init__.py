"""Facts that several rooms share. Modules here import nothing else from the package."""
