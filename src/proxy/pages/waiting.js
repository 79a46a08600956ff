'use strict';
// Follows the start of the app and opens it when it is there. Without this script the page asks again by itself.
(() => {
  const began = Date.now();
  const sentence = document.getElementById('sentence');
  const bar = document.querySelector('progress');
  const lines = document.querySelector('pre');
  let asleep = 0;

  const show = state => {
    if (sentence.textContent !== state.sentence) sentence.textContent = state.sentence;
    if (bar && state.expectedMs) bar.value = Math.min(0.95, (Date.now() - began) / state.expectedMs);
    asleep = state.status === 'inactive' ? asleep + 1 : 0;
    // It fell asleep again before anybody saw it: to open it is to wake it.
    if (state.status === 'running' || asleep > 4) return location.reload();
    if (state.status === 'error' || state.status === 'stopped') {
      if (bar) bar.hidden = true;
      if (lines && state.output) {
        lines.textContent = state.output;
        lines.hidden = false;
      }
      document.title = state.sentence;
      return;
    }
    setTimeout(ask, 300);
  };
  const ask = () => fetch('/.muelle/state', { cache: 'no-store' })
    .then(answer => answer.ok ? answer.json() : Promise.reject(answer.status))
    // There is no such app any more.
    .then(show, status => status === 404 ? location.reload() : setTimeout(ask, 1000));
  ask();
})();
