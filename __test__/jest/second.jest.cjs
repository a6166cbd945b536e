module.exports = require('./cases.cjs');
