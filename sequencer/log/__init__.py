"""The log: ticks of records, hash-chained, appended durably."""
