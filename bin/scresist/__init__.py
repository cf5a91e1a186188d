"""What the scripts in bin/ share: kernels by domain (pure functions) and plumbing (files, status, contract).

Nothing heavy is imported here: containers differ, and the report image has no scanpy.
"""

__version__ = "0.1.0"
