// A click on a button with `data-choice` becomes the value of this component and the event 'choose'.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-choice]");
  if (!button) return;
  props.value = button.dataset.choice;
  trigger("choose");
});
