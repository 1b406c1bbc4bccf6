// Runs before the first paint, so that a chosen theme never flashes. Light and dark are one CSS function: light-dark().
(() => {
  let t;
  try { t = localStorage.getItem('theme'); } catch { /* storage may be blocked */ }
  if (t === 'light' || t === 'dark') document.documentElement.dataset.theme = t;
})();
