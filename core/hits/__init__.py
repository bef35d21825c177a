"""How often rules were met, and which can never be met."""
