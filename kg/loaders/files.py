"""Reading tables that may be large, and naming the line where one is wrong."""

import csv
import gzip
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from medaction.kg.tables import BadTable

SEPARATORS = {",": "commas", "\t": "TAB", ";": "semicolons", "|": "bars"}
TableRow = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Table:
    """A table to read: CSV with a header and this separator, or parquet (separator ''). `path` is
    what errors name.

    data: the file to read, which is not `path` where that is compressed. columns: the names of all
    that it has.
    """

    path: Path
    data: Path
    separator: str
    columns: tuple[str, ...]

    def batches(
        self, columns: Mapping[str, type[pl.DataType]], size: int = 50_000
    ) -> Iterator[pl.DataFrame]:
        """These columns as these types, about `size` rows at a time, so that a large file needs
        little memory.

        In file order. Fields that are missing at the end of a row are null. Raises BadTable.
        """
        if self.separator:
            # All columns are parsed, not only those wanted: only then does the reader see that a
            # row has too many fields.
            scan = pl.scan_csv(
                self.data,
                separator=self.separator,
                schema_overrides=dict(columns),
                infer_schema=False,
            )
        else:
            scan = pl.scan_parquet(self.data).select(
                pl.col(name).cast(kind) for name, kind in columns.items()
            )
        with self.blamed():
            for batch in scan.collect_batches(
                chunk_size=size, maintain_order=True, engine="streaming"
            ):
                yield batch.select(columns.keys())

    def read(self, columns: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        """All rows at once. Raises BadTable."""
        return pl.concat([pl.DataFrame(schema=columns), *self.batches(columns)])

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Errors of the fast reader become a BadTable that names the first line that is wrong."""
        try:
            yield
        except pl.exceptions.PolarsError as error:
            raise self.blame(lambda row: None, str(error).splitlines()[0]) from error

    def blame(self, wrong: Callable[[TableRow], str | None], otherwise: str) -> BadTable:
        """The error of the first row that is malformed or `wrong`; `otherwise` if there is none.
        Slow: only for what has failed."""
        line = 1
        try:
            for line, row in self._rows():
                if message := wrong(row):
                    return BadTable(self.path, line, message)
        except BadTable as error:
            return error
        return BadTable(self.path, line, otherwise)

    def _rows(self) -> Iterator[tuple[int, TableRow]]:
        """(line, row): the line where a row ends; in parquet, the row's number from 1. Raises
        BadTable for a malformed row."""
        if not self.separator:
            yield from enumerate(  # parquet has no lines
                pl.scan_parquet(self.data).cast(pl.String).collect().iter_rows(named=True), 1
            )
            return
        with self.data.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.separator, strict=True)
            try:
                names = next(reader)
                for fields in reader:
                    if len(fields) != len(names):
                        separator = SEPARATORS[self.separator]
                        message = (
                            f"a row has {len(names)} fields separated by {separator},"
                            f" this one {len(fields)}"
                        )
                        raise BadTable(
                            self.path, reader.line_num, f"{message}; is the file cut short?"
                        )
                    yield reader.line_num, dict(zip(names, fields, strict=True))
            except csv.Error as error:
                raise BadTable(
                    self.path, reader.line_num, f"{error}; is the file cut short?"
                ) from error
            except UnicodeDecodeError as error:
                raise BadTable(
                    self.path, reader.line_num + 1, f"is not UTF-8 from here on: {error.reason}"
                ) from error


@contextmanager
def opened(path: Path, columns: Sequence[str], separators: str = ",\t") -> Iterator[Table]:
    """`path` as a Table that has these columns; `.gz` is decompressed into a temporary file.
    `.parquet` is read as such.

    Raises BadTable for a file that is empty, cut short, or has other columns or another separator.
    """
    with TemporaryDirectory(prefix="medaction-") as folder:
        data = _decompressed(path, Path(folder)) if path.suffix == ".gz" else path
        if path.suffix == ".parquet":
            try:
                names, separator = list(pl.scan_parquet(data).collect_schema()), ""
            except pl.exceptions.PolarsError as error:
                raise BadTable(
                    path, 1, f"is no parquet file: {str(error).splitlines()[0]}"
                ) from error
        else:
            names, separator = _header(path, data, columns, separators)
        if missing := [column for column in columns if column not in names]:
            raise BadTable(
                path,
                1,
                f"the columns {', '.join(missing)} are missing; there are {', '.join(names)[:300]}",
            )
        yield Table(path, data, separator, tuple(names))


def _header(
    path: Path, data: Path, columns: Sequence[str], separators: str
) -> tuple[list[str], str]:
    """The header's columns and the separator by which they are told apart. Raises BadTable for a
    wrong separator."""
    try:
        with data.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline()
    except UnicodeDecodeError as error:
        raise BadTable(
            path, 1, "is no text in UTF-8: a graph is CSV, TSV (both may be gzipped) or parquet"
        ) from error
    if not line.strip():
        raise BadTable(path, 1, "the file is empty: it must begin with a header")
    # Told by the columns that are sought: commas may well stand in a header of tabs.
    separator = max(
        SEPARATORS, key=lambda mark: len({*columns} & {*next(csv.reader([line], delimiter=mark))})
    )
    names = next(csv.reader([line.rstrip("\r\n")], delimiter=separator))
    # Where no column is known under any separator the file lacks columns: the caller says so.
    if separator not in separators and {*columns} & {*names}:
        wanted = " or ".join(SEPARATORS[mark] for mark in separators)
        raise BadTable(
            path,
            1,
            f"the columns are separated by {SEPARATORS[separator]}; they must be by {wanted}",
        )
    return names, separator


def _decompressed(path: Path, folder: Path) -> Path:
    data = folder / path.stem
    try:
        with gzip.open(path) as packed, data.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        with data.open("rb") as plain:
            # The line that the damage cut off: the first that could not be unpacked whole.
            line = 1 + sum(chunk.count(b"\n") for chunk in iter(lambda: plain.read(1 << 20), b""))
        raise BadTable(path, line, f"the gzip file is damaged or cut short ({error})") from error
    return data
