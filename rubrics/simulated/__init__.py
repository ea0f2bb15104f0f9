"""A simulated judge: an OpenAI-compatible server whose every weakness is a dial.

For the demo, the tests and the benchmarks. What it says is drawn from known qualities or from
what an answer looks like, never from understanding it: its verdicts are simulated and labelled so.

- ``dials``: what can be set, and the table of named models
- ``asking``: what a chat request asks, read from its sections
- ``features``: what an answer looks like, and which words of a criterion name it
- ``mind``: how good it finds each answer
- ``handlers``: one answer per kind of question, as a table
- ``tokens``: a text as tokens with log-probabilities
- ``ledger``: charges, attempts and counts, shared by restarts
- ``app``: the protocol; ``serving``: in the foreground or in a thread
"""
