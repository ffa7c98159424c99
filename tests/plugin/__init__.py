"""A package outside the repository, as a user's would be; tests make it visible by PYTHONPATH, never by installing it.

(This file keeps pytest from putting the folder on its own ``sys.path``, where the contract tests would find the methods.)
"""
