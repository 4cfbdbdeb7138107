"""Conformance checks of plug-ins, and the small pools and tasks that they run on."""
