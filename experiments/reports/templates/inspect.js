document.querySelectorAll('.table').forEach(box => {
  const body = box.querySelector('tbody'), rows = [...body.rows];
  box.querySelectorAll('th').forEach((head, column) => head.addEventListener('click', () => {
    const down = head.dataset.down = head.dataset.down === '1' ? '' : '1';
    const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    rows.sort((a, b) => (down ? 1 : -1) * key(a).localeCompare(key(b), undefined, {numeric: true}));
    body.append(...rows);
  }));
  const filter = box.previousElementSibling;
  if (filter && filter.matches('input.filter')) filter.addEventListener('input', () => {
    const words = filter.value.toLowerCase();
    rows.forEach(row => row.hidden = !row.textContent.toLowerCase().includes(words));
  });
});
