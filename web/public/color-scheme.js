// Runs before the first paint so that a dark page never flashes white. External, because the content
// security policy allows no inline script. The key is the one src/app/theme.ts hands to Mantine.
(function () {
  var choice = null;
  try {
    choice = window.localStorage.getItem('everhold.color-scheme');
  } catch {
    // Storage may be forbidden; the system's wish decides then.
  }
  var dark = choice === 'dark' || (choice !== 'light' && window.matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.setAttribute('data-mantine-color-scheme', dark ? 'dark' : 'light');
})();
