"""Vendor performance files: from bytes to typed rows, quarantined rows and reasons.

Belongs here: containers, encodings, layouts, values, detection and vendor contracts. Nothing in this package stores,
schedules or configures; it takes bytes and gives tables.
"""
