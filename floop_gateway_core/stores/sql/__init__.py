"""What the SQL databases share: rows of every table, in SQL that each of them understands, and a store over them."""
