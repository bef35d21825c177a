"""Captures that run on their own: the agent works them, and keeps their files until somebody deletes them."""
