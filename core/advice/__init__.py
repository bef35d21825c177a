"""What would change the outcome of a flow: edits of policies, checked by evaluating them, and what else they flip."""
