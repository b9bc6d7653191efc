import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { showKeptTheme } from './shared/theme';
import { speakTheUsersLanguage } from './shared/words.svelte';

showKeptTheme();
const target = document.getElementById('app');
if (target) void speakTheUsersLanguage().then(() => mount(App, { target }));
