"""Calico's and Kubernetes' policy objects, and their names in the dataplane."""
