"""What leaves the pipeline: exports, one document per ticker, alerts."""
