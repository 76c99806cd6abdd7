"""Where a graph leaves its model: activations of both along the graph, and what is known to cause a difference."""
