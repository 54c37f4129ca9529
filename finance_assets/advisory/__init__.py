"""Advisory performance: any vendor's file to a return that can be believed."""
