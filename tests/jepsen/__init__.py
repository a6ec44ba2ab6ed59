"""An attack on a store by real processes, as Jepsen does it: ``python -m tests.jepsen``.

``attack`` starts the processes of ``client`` on one store, hurts them and the store for a while,
and lets what is left come to rest. Each process writes down what it tried and what it was told
(``notes``). ``judge`` compares the notes with the log, which was watched from its beginning.
"""
