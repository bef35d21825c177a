"""What the API objects mean: selectors, labels, policies, and what they alone decide for a flow."""
