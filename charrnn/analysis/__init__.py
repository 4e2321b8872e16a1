"""What the units do: activations, their properties, the page."""
