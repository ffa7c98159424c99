"""
The methods
===========

For whoever wants to see what there is.
"""

from mmbench.baselines import METHODS

print(list(METHODS)[:8])
