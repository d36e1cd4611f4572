"""Functions of the task files beside this one."""


def with_answer(rows):
    """Returns the rows with the number of the right river, which is named first in the file."""
    return rows.map(
        lambda row: {"rivers": sorted(row["rivers"]), "answer": sorted(row["rivers"]).index(row["rivers"][0])}
    )
