"""The demo's agents: programs that read their prompt and the tree and really do the work, the same way each time.

A language model would be slow, cost money and differ from run to run. These read what a model would be given and
nothing else, so a demo that ends well proves that prompt, tree, history and findings reached them.
"""
