"""What was measured and spent, for the tools that a team follows it with.

`rows`: every answer of every system as a table, CSV or Parquet. `prometheus`: the account and the
releases as a textfile of metrics. `mlflow` sends to an MLflow server what `measured` gathers.
"""
