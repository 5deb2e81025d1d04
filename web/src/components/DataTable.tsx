/**
 * Tables: TanStack Table keeps the model, this draws it. On narrow screens each row becomes a card whose
 * cells carry their column's name, so nothing scrolls sideways at 320 px.
 */
import { VisuallyHidden } from '@mantine/core';
import { IconArrowDown, IconArrowsSort, IconArrowUp } from '@tabler/icons-react';
import {
  createSortedRowModel,
  rowSortingFeature,
  sortFn_basic,
  tableFeatures,
  useTable,
  type ColumnDef,
  type RowData,
  type SortingState,
} from '@tanstack/react-table';
import { Fragment, type ReactNode } from 'react';
import { useWords } from '../i18n/useWords';
import classes from './DataTable.module.css';

const features = tableFeatures({
  rowSortingFeature,
  sortedRowModel: createSortedRowModel(),
  sortFns: { basic: sortFn_basic },
});

export interface Column<T> {
  id: string;
  header: string;
  cell: (row: T) => ReactNode;
  /** Present: the column can be sorted by it. */
  sortBy?: (row: T) => string | number;
  align?: 'end';
  /** The column explains itself; its header is for those who cannot see it. */
  headerHidden?: true;
  /** The cell that names the row. */
  isName?: true;
}

interface DataTableProps<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  rowId: (row: T) => string;
  /** `name` or `-name`, as it stands in the URL. */
  sort?: string | undefined;
  onSort?: (sort: string | undefined) => void;
  /** Something about a row that takes the whole width below it. */
  below?: (row: T) => ReactNode;
}

const sortingOf = (sort: string | undefined): SortingState =>
  sort ? [{ id: sort.replace(/^-/, ''), desc: sort.startsWith('-') }] : [];

function definition<T extends RowData>(column: Column<T>): ColumnDef<typeof features, T> {
  return {
    id: column.id,
    accessorFn: (row) => column.sortBy?.(row),
    header: column.header,
    enableSorting: column.sortBy !== undefined,
    sortFn: 'basic',
  };
}

export function DataTable<T extends RowData>(props: DataTableProps<T>) {
  const { t } = useWords();
  const { label, columns, rows, rowId, sort, onSort, below } = props;
  const table = useTable({
    features,
    columns: columns.map(definition),
    data: rows,
    getRowId: rowId,
    state: { sorting: sortingOf(sort) },
  });
  const byId = new Map(columns.map((column) => [column.id, column]));

  const header = (column: Column<T>) => {
    if (column.headerHidden) return <VisuallyHidden>{column.header}</VisuallyHidden>;
    if (!column.sortBy || !onSort) return column.header;
    const direction = sort === column.id ? 'up' : sort === `-${column.id}` ? 'down' : null;
    const Arrow = direction === 'up' ? IconArrowUp : direction === 'down' ? IconArrowDown : IconArrowsSort;
    const next = direction === null ? column.id : direction === 'up' ? `-${column.id}` : undefined;
    return (
      <button
        type="button"
        className={classes.sort}
        data-active={direction !== null || undefined}
        aria-label={t('workloads.sorted', { column: column.header })}
        onClick={() => onSort(next)}
      >
        {column.header}
        <Arrow size={14} aria-hidden="true" />
      </button>
    );
  };

  const order = (column: Column<T>) =>
    sort === column.id ? 'ascending' : sort === `-${column.id}` ? 'descending' : undefined;

  return (
    <table className={classes.table} aria-label={label}>
      <thead>
        <tr>
          {columns.map((column) => (
            <th key={column.id} scope="col" data-align={column.align} aria-sort={order(column)}>
              {header(column)}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {table.getRowModel().rows.map((row) => {
          const extra = below?.(row.original);
          return (
            <Fragment key={row.id}>
              <tr data-extended={extra ? true : undefined}>
                {row.getAllCells().map((cell) => {
                  const column = byId.get(cell.column.id);
                  const Cell = column?.isName ? 'th' : 'td';
                  return (
                    <Cell
                      key={cell.id}
                      {...(column?.isName ? { scope: 'row' } : {})}
                      data-align={column?.align}
                      data-label={column?.headerHidden ? undefined : column?.header}
                    >
                      {/* Called, not mounted: as a component it would be a new one at every render. */}
                      {column?.cell(row.original)}
                    </Cell>
                  );
                })}
              </tr>
              {extra && (
                <tr className={classes.extra}>
                  <td colSpan={columns.length}>{extra}</td>
                </tr>
              )}
            </Fragment>
          );
        })}
      </tbody>
    </table>
  );
}
