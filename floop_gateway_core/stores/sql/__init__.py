"""Code shared by the SQL stores: functions for each table's rows, in portable SQL, and a store built on them."""
