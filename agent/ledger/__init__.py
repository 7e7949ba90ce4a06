"""The durable record: totals committed before they are shown, closed window rows and gaps that are only added to.

writer.Ledger is the agent's hold on it, reader.read_only everybody else's; batch has the values that go in. They are
imported from their own modules, since only a daemon needs sqlite3 and the locks of a Unix.
"""
