"""What a user might pick instead, measured by the same scripts: ``make peers``.

Each peer runs in processes of its own, with its own durable setting, which the table states. A step
does nothing, so what is measured is what making it durable costs. Not part of the package.
"""
